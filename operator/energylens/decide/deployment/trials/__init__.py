"""Plans on trial: approval, verification by one replica, measured windows, rollback."""
