"""The doctor: reads a set of chunks, has it judged by `checks`, and reports."""
