"""Studies: entries that differ in settings, trained with the same seeds, evaluated and compared together."""
