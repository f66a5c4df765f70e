"""Pure functions from timelines and results to plotly figures, and to HTML; nothing else imports plotly."""
