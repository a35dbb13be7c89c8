"""`ccnet train` from a clone: python scripts/train.py RECIPE --run-dir FOLDER."""

from ccnet.commands.train import main

if __name__ == "__main__":
    main()
