"""The network controller: a learning switch, with a built-in host if one is wanted."""
