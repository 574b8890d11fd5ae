"""Command-line programs: click commands, console output, signals and exit statuses."""
