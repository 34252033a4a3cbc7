"""``python -m landingopt`` is the command ``landingopt``."""

from landingopt.cli import main

if __name__ == "__main__":
    main()
