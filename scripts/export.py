"""`ccnet export` from a clone: python scripts/export.py --output model.onnx."""

from ccnet.commands.export import main

if __name__ == "__main__":
    main()
