"""Bytes in frames between processes: one contract (`transport.port`), over ZeroMQ or in one process."""
