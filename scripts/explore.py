"""`ccnet explore` from a clone: python scripts/explore.py."""

from ccnet.commands.explore import main

if __name__ == "__main__":
    main()
