"""Energy budgets as pure accounting: periods, ledger, forecasts, remaining energy, and which members shed power."""
