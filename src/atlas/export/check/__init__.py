"""The proof of an export, in the runtime of those who will use it."""
