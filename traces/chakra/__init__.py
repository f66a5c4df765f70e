"""Chakra execution traces (MLCommons): the schema, and files of length-delimited nodes, one per rank."""
