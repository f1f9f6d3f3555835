"""From waves and contact pulses to scores: protocols, metrics, tables, figures, reports."""
