"""`ccnet publish_zoo` from a clone: python scripts/publish_zoo.py --owner NAME."""

from ccnet.commands.publish_zoo import main

if __name__ == "__main__":
    main()
