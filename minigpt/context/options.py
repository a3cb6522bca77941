"""What there is to choose about a longer context. Importing this does not wait for torch."""

ROPES = ("yarn", "ntk", "dynamic", "linear", "llama3", "none")
