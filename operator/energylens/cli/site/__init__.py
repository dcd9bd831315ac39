"""The pages of `energylens ui`: which there are, and the server that sends them."""
