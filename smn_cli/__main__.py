"""`python -m smn_cli`, for torchrun and for machines where the script folder is not on the path."""

from smn_cli.cli import main

if __name__ == "__main__":
    main()
