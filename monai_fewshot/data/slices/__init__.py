# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
