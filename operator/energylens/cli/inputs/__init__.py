"""What commands work on: files, a described or live cluster, the options that name them."""
