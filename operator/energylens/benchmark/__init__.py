"""Measuring a running engine under known loads, for `calibrate fit`: a streaming client, and its observations."""
