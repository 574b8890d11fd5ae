<#
.SYNOPSIS
Installs tunnel-rs, tunnel-rs-ice and tunnel-rs-vpn for the user who runs this, or removes them.

.DESCRIPTION
The programs get an environment of their own below %LOCALAPPDATA%\tunnel-rs, and a directory with
the three of them is added to the user's PATH. No administrator rights are needed. Packages come
from where your pip is set up to get them.

.EXAMPLE
.\install.ps1
The newest release.

.EXAMPLE
.\install.ps1 -Prerelease
The newest version, also if it is a preview.

.EXAMPLE
.\install.ps1 v1.2.0
This version: a tag of the project, with or without the v.

.EXAMPLE
.\install.ps1 -Uninstall
Remove it again; configuration and keys stay.
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    # A version, or a tag of the project.
    [Parameter(Position = 0)]
    [ValidatePattern('^[0-9A-Za-z.+!-]*$')]
    [string] $Version = '',

    # Previews count as versions, too.
    [switch] $Prerelease,

    # Take packages from this directory of wheels alone, without a network.
    [string] $From = '',

    # Install this wheel of tunnel-rs.
    [string] $Wheel = '',

    # What the wheel must hash to.
    [string] $Sha256 = '',

    # Versions and hashes of all that it needs: whatever does not match is refused. Taken by itself
    # when constraints.txt is beside this script.
    [string] $Constraints = '',

    # Do without the constraints.txt beside this script.
    [switch] $NoConstraints,

    # Of uvloop and vpn, with commas between them.
    [ValidatePattern('^[a-z,]*$')]
    [string] $Extras = '',

    # Where all of it goes.
    [string] $Prefix = (Join-Path $env:LOCALAPPDATA 'tunnel-rs'),

    # The Python to use: 3.11 or newer. Default: the first one found.
    [string] $Python = '',

    # Remove what this script has installed.
    [switch] $Uninstall
)

Set-StrictMode -Version 3
$ErrorActionPreference = 'Stop'
$Package = 'tunnel-rs'
$Programs = 'tunnel-rs', 'tunnel-rs-ice', 'tunnel-rs-vpn'
$Bin = Join-Path $Prefix 'bin'
$Mark = Join-Path $Prefix '.installed-by-tunnel-rs'

function Exit-WithError([string] $Text) {
    [Console]::Error.WriteLine("install.ps1: $Text")
    exit 1
}

function Get-UserPath {
    # Not expanded: %VARIABLES% in it have to stay what they are.
    $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment')
    try {
        $text = $key.GetValue('Path', '', 'DoNotExpandEnvironmentNames')
        return @($text -split ';' | Where-Object { $_ })
    }
    finally { $key.Dispose() }
}

function Write-UserPath([string[]] $Entries) {
    $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment', $true)
    try { $key.SetValue('Path', ($Entries -join ';'), 'ExpandString') }
    finally { $key.Dispose() }
    # Tells programs that run, the desktop among them, that the environment has changed.
    $name = 'tunnel_rs_install'
    [Environment]::SetEnvironmentVariable($name, '1', 'User')
    [Environment]::SetEnvironmentVariable($name, $null, 'User')
}

function Test-Python([string] $Candidate) {
    if (-not (Get-Command $Candidate -CommandType Application -ErrorAction Ignore)) { return $false }
    # The Python of the Microsoft Store that is not there yet answers with an error, too.
    & $Candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>$null
    return $LASTEXITCODE -eq 0
}

function Invoke-Pip([string] $Environment, [string[]] $Arguments) {
    $program = Join-Path $Environment 'Scripts\python.exe'
    & $program -m pip --disable-pip-version-check --no-input @Arguments | Out-Host
    return $LASTEXITCODE -eq 0
}

if ($Uninstall) {
    if (-not (Test-Path $Mark)) {
        Exit-WithError "nothing of ours is in $Prefix; was it installed with another -Prefix?"
    }
    if ($PSCmdlet.ShouldProcess($Prefix, 'remove')) {
        Remove-Item $Prefix -Recurse -Force
        Write-UserPath @(Get-UserPath | Where-Object { $_ -ne $Bin })
        Write-Output "removed $Prefix; your configuration and keys are where they were"
    }
    exit 0
}

if ($Version -and $Wheel) { Exit-WithError 'give a version or -Wheel, not both' }
if ($Sha256 -and -not $Wheel) { Exit-WithError '-Sha256 goes with -Wheel' }

if ($Python) {
    if (-not (Test-Python $Python)) { Exit-WithError "$Python is no Python 3.11 or newer" }
}
else {
    $Python = 'python', 'python3', 'py' | Where-Object { Test-Python $_ } | Select-Object -First 1
    if (-not $Python) {
        Exit-WithError ('no Python 3.11 or newer was found. Install one (winget install ' +
            'Python.Python.3.13), or name it with -Python')
    }
}

if ($Wheel) {
    if (-not (Test-Path $Wheel -PathType Leaf)) { Exit-WithError "there is no wheel $Wheel" }
    $found = (Get-FileHash $Wheel -Algorithm SHA256).Hash
    if ($Sha256 -and $found -ne $Sha256) {
        Exit-WithError "$Wheel is not what it should be: its SHA-256 is $found. Nothing was installed"
    }
}
$beside = Join-Path $PSScriptRoot 'constraints.txt'
if (-not $Constraints -and -not $NoConstraints -and (Test-Path $beside)) { $Constraints = $beside }
if ($Constraints -and -not (Test-Path $Constraints)) { Exit-WithError "there is no file $Constraints" }
if ((Test-Path $Bin) -and -not (Test-Path $Mark)) {
    Exit-WithError "$Bin is there and is not ours; choose another -Prefix"
}
if (-not $PSCmdlet.ShouldProcess($Prefix, 'install')) { exit 0 }

# The new environment is made beside the one in use, which stays until the new one is whole.
$new = Join-Path $Prefix "env-$PID"
$done = $false
try {
    New-Item $Bin -ItemType Directory -Force | Out-Null
    & $Python -m venv $new
    if ($LASTEXITCODE -ne 0) { Exit-WithError "$Python could not make an environment in $new" }

    $arguments = @('install', '--quiet')
    if ($From) { $arguments += '--no-index', '--find-links', $From }
    if ($Constraints) {
        Write-Output "installing what $Package needs, by the hashes in $Constraints"
        $needed = $arguments + @('--require-hashes', '--requirement', $Constraints)
        if (-not (Invoke-Pip $new $needed)) {
            Exit-WithError "what $Package needs could not be installed: see above. Nothing was changed"
        }
        if ($Extras) {
            Write-Output "note: what the extras bring is not in $Constraints, and comes without a hash"
        }
        else { $arguments += '--no-deps' }
    }
    if ($Prerelease) { $arguments += '--pre' }
    $suffix = if ($Extras) { "[$Extras]" } else { '' }
    $what = if ($Wheel) { "$Wheel$suffix" } else { "$Package$suffix" }
    if ($Version) { $what = "$what==$($Version -replace '^v', '')" }
    Write-Output "installing $what"
    if (-not (Invoke-Pip $new ($arguments + $what))) {
        Exit-WithError "$what could not be installed: see above. Nothing was changed"
    }
    if (-not (Invoke-Pip $new @('--quiet', 'check'))) {
        Exit-WithError 'the versions do not go together: see above. Nothing was changed'
    }
    foreach ($program in $Programs) {
        & (Join-Path $new "Scripts\$program.exe") --version | Out-Null
        if ($LASTEXITCODE -ne 0) { Exit-WithError "$program does not start. Nothing was changed" }
    }
    foreach ($program in $Programs) {
        # A launcher finds its environment by a path inside it, so that a copy works anywhere.
        Copy-Item (Join-Path $new "Scripts\$program.exe") (Join-Path $Bin "$program.exe") -Force
    }
    New-Item $Mark -ItemType File -Force | Out-Null
    $done = $true
}
finally {
    if (-not $done -and (Test-Path $new)) { Remove-Item $new -Recurse -Force }
}
Get-ChildItem $Prefix -Directory -Filter 'env-*' |
    Where-Object { $_.FullName -ne $new } |
    Remove-Item -Recurse -Force -ErrorAction Continue

Write-Output "installed $(& (Join-Path $Bin "$Package.exe") --version); the programs are in $Bin"
if ((Get-UserPath) -notcontains $Bin) {
    Write-UserPath (@(Get-UserPath) + $Bin)
    Write-Output "$Bin was added to your PATH: open a new terminal to use it"
}
