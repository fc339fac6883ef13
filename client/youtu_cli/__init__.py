"""The command line `youtu`: see `main` for its commands. It uses `youtu_client` as any program would."""
