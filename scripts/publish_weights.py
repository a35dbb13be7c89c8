"""`ccnet publish` from a clone: python scripts/publish_weights.py TRAINED PUBLISHED."""

from ccnet.commands.publish import main

if __name__ == "__main__":
    main()
