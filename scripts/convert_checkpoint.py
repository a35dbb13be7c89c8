"""`ccnet convert` from a clone: python scripts/convert_checkpoint.py FILE --output FOLDER."""

from ccnet.commands.convert import main

if __name__ == "__main__":
    main()
