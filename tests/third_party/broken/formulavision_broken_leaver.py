raise SystemExit("leaves while it is imported")
