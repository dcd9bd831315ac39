"""Measuring a running engine under known loads, for `calibrate fit`: a client that streams, and what it saw."""
