"""`python -m howdah` is the installed command `howdah`."""

from howdah.cli import main

if __name__ == "__main__":
    main(prog_name="howdah")
