"""Puts what a system needs beside the program: units, rules, policies. Nothing but the standard library is imported here."""
