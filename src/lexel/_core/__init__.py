"""Private modules that every floor may use: settings, collectives, shared arithmetic, files and the terminal."""
