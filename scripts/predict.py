"""`ccnet predict` from a clone: python scripts/predict.py street.jpg --output results."""

from ccnet.commands.predict import main

if __name__ == "__main__":
    main()
