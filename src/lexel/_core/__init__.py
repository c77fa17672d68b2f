"""What every floor may use: settings, collectives, shared arithmetic, files and the terminal."""
