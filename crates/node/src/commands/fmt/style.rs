//! The choices that a project can make about the layout: `formatstyle` in `.sesamconfig.json`.

use serde_json::Value as Json;
use tahini_hub::config::nearest;

/// How configuration is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// Spaces of one indentation.
    pub spaces_for_indent: usize,
    /// One tab instead of them.
    pub use_tab_for_indent: bool,
    /// A space after each colon.
    pub space_after_colon: bool,
    /// A space after each comma that no line ends with.
    pub space_after_comma: bool,
    /// An object begins on a line of its own.
    pub new_line_before_dict_as_value: bool,
    /// An object in a list begins on a line of its own.
    pub newline_before_dict_in_array: bool,
    /// A list that ends with a list is closed on a line of its own.
    pub close_nested_array_on_new_line: bool,
    /// Objects in a list stand on the list's indentation.
    pub collapse_indent_for_dict_inside_array: bool,
    /// Each element of a list that is a property's value begins a line.
    pub elements_of_array_as_value_on_separate_lines: bool,
    /// Well-known names come first, in their usual order.
    pub sort_keys_by_convention: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            spaces_for_indent: 2,
            use_tab_for_indent: false,
            space_after_colon: true,
            space_after_comma: true,
            new_line_before_dict_as_value: false,
            newline_before_dict_in_array: false,
            close_nested_array_on_new_line: true,
            collapse_indent_for_dict_inside_array: true,
            elements_of_array_as_value_on_separate_lines: false,
            sort_keys_by_convention: true,
        }
    }
}

/// The most spaces of one indentation.
const MAX_INDENT: u64 = 16;

impl Style {
    /// Reads the choices that differ from the usual ones.
    ///
    /// # Errors
    /// In words, for a name that is no choice and for a value of another type.
    pub fn of(json: &Json) -> Result<Style, String> {
        let mut style = Style::default();
        let choices = match json {
            Json::Null => return Ok(style),
            Json::Object(choices) => choices,
            other => return Err(format!("formatstyle: expected an object, found {other}")),
        };
        for (name, value) in choices {
            match (name.as_str(), style.flag(name)) {
                // A choice of the reference's editor; it has nothing to do with the text.
                ("font_size", _) => {}
                ("spaces_for_indent", _) => {
                    let spaces = value.as_u64().filter(|spaces| *spaces <= MAX_INDENT);
                    style.spaces_for_indent = spaces
                        .and_then(|spaces| usize::try_from(spaces).ok())
                        .ok_or_else(|| {
                            format!(
                                "formatstyle.{name}: expected a whole number up to {MAX_INDENT}, \
                                 found {value}"
                            )
                        })?;
                }
                (_, Some(flag)) => {
                    *flag = value.as_bool().ok_or_else(|| {
                        format!("formatstyle.{name}: expected true or false, found {value}")
                    })?;
                }
                (_, None) => return Err(unknown(name)),
            }
        }
        Ok(style)
    }

    fn flag(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "use_tab_for_indent" => &mut self.use_tab_for_indent,
            "space_after_colon" => &mut self.space_after_colon,
            "space_after_comma" => &mut self.space_after_comma,
            "new_line_before_dict_as_value" => &mut self.new_line_before_dict_as_value,
            "newline_before_dict_in_array" => &mut self.newline_before_dict_in_array,
            "close_nested_array_on_new_line" => &mut self.close_nested_array_on_new_line,
            "collapse_indent_for_dict_inside_array" => {
                &mut self.collapse_indent_for_dict_inside_array
            }
            "elements_of_array_as_value_on_separate_lines" => {
                &mut self.elements_of_array_as_value_on_separate_lines
            }
            "sort_keys_by_convention" => &mut self.sort_keys_by_convention,
            _ => return None,
        })
    }
}

/// The names of all choices, for help.
const NAMES: [&str; 10] = [
    "spaces_for_indent",
    "use_tab_for_indent",
    "space_after_colon",
    "space_after_comma",
    "new_line_before_dict_as_value",
    "newline_before_dict_in_array",
    "close_nested_array_on_new_line",
    "collapse_indent_for_dict_inside_array",
    "elements_of_array_as_value_on_separate_lines",
    "sort_keys_by_convention",
];

fn unknown(name: &str) -> String {
    let help = nearest(name, NAMES)
        .map(|near| format!("; did you mean {near:?}?"))
        .unwrap_or_default();
    format!("formatstyle: expected a known choice, found {name:?}{help}")
}
