"""Command lines: a module for each subcommand of `ccnet`; `scripts/` calls them too.

This file imports nothing: to list the commands takes no PyTorch.
"""

COMMANDS = {
    "predict": "segment pictures, or a rendered street to begin with",
    "train": "train or fine-tune a network",
    "evaluate": "measure mIoU on a data set, and confirm the published one",
    "attention": "draw which positions a pixel attends to",
    "explore": "click a pixel in the browser, and see from where it gathers",
    "convert": "convert a checkpoint of another code base",
    "export": "export a network as ONNX or a program of PyTorch",
    "pretrain": "pre-train a backbone on a folder or archive of classes",
    "publish": "make a small file of trained weights, to pass on",
    "publish_zoo": "publish networks on the Hugging Face Hub, and pin them",
}
"""What each does, by its name, which is that of its module: `main(argv, prog)` runs it."""
