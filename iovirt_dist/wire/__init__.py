"""What crosses a socket: messages, their strict codec, packed command batches, sessions."""
