"""`ccnet evaluate` from a clone: python scripts/evaluate.py camvid --root CamVid --confirm."""

from ccnet.commands.evaluate import main

if __name__ == "__main__":
    main()
