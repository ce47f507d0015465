"""Whether everything is set up: small looks at the machine, each with what it found and how to mend it."""
