"""Outside text and bytes <-> our values. Pure, and the only owner of outside column names."""
