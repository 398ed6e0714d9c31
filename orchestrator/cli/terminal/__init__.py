"""The output of commands: tables, bars, lines, files of pictures."""
