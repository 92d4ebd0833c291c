"""``python -m moltc_vllm.cli``: the command without its script."""

from moltc_vllm.cli import main

if __name__ == "__main__":
    main()
