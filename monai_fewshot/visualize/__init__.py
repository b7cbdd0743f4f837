# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .cases import SliceCase, capture_case, read_cases, select_cases, write_cases
from .overlay import Panel, draw_panel, figure_to_array, figure_to_png, orient_slice, overlay_figure
from .page import render_page
from .report import EPISODE_WORDS, IMAGE_WORDS, VOLUME_WORDS, ReportWords, write_report
from .report_figures import box_figure, case_figure, protocol_colors
from .scan_changes import ScanChange, change_figure, write_change_page
from .scan_index import write_scan_index
from .scan_previews import class_colors, picture_figure, preview_figure

__all__ = [
    "EPISODE_WORDS",
    "IMAGE_WORDS",
    "VOLUME_WORDS",
    "Panel",
    "ReportWords",
    "ScanChange",
    "SliceCase",
    "box_figure",
    "capture_case",
    "case_figure",
    "change_figure",
    "class_colors",
    "draw_panel",
    "figure_to_array",
    "figure_to_png",
    "orient_slice",
    "overlay_figure",
    "picture_figure",
    "preview_figure",
    "protocol_colors",
    "read_cases",
    "render_page",
    "select_cases",
    "write_cases",
    "write_change_page",
    "write_report",
    "write_scan_index",
]
