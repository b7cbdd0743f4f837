# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from monai_fewshot.apps.command.cli import main

if __name__ == "__main__":
    main()
