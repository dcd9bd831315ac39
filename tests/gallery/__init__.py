"""The examples of examples/: each folder has an expected.txt, a transcript of commands and of what they print."""
