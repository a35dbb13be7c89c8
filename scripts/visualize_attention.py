"""`ccnet attention` from a clone: python scripts/visualize_attention.py street.jpg."""

from ccnet.commands.attention import main

if __name__ == "__main__":
    main()
