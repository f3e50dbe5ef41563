"""The night watch: an issue per red cell, opened, kept up to date and closed; a webhook that is told."""
