"""The pages of `energylens ui`, their addresses, and the server that sends them."""
