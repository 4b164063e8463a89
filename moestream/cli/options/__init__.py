"""Options of the command line, made from the dataclasses' fields that they fill."""
