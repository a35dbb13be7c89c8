"""`ccnet pretrain` from a clone: python scripts/pretrain_backbone.py IMAGES --run-dir FOLDER."""

from ccnet.commands.pretrain import main

if __name__ == "__main__":
    main()
