"""Everything fitted to measured runs: coefficients, profiles, residual, intervals and corrections."""
