"""The load that plans are made for: stated, followed, learned by the hour."""
