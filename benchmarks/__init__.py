"""Side-by-side runs. Figures are ratios within one run, on whatever machine runs them."""
