"""Energy budgets as pure accounting: periods, the ledger, forecasts, what is left, and who gives power up."""
