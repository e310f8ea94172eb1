"""What a plugin author needs: the contract of a generator, the hook specifications, the registry of plugins."""
