<?php
// Whoever the test names, with the password "any".
$told = json_decode(file_get_contents(getenv('GROUPGATE_SAML_DIR') . '/told.json'), true, 512, JSON_THROW_ON_ERROR);
$config = ['people' => ['exampleauth:UserPass']];
foreach ($told['people'] ?? [] as $name => $attributes) {
    $config['people']["$name:any"] = $attributes;
}
